-- Refused rows of each receipt by reason code: one row per receipt and reason.
select contribution_id, contributor, model, entry['reason'] as reason, entry['count'] as count
from (select contribution_id, contributor, model, unnest(refused) as entry from receipts)
