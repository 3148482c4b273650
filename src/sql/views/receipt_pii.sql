-- Cells with personal data of each receipt by type: one row per receipt and type.
select contribution_id, contributor, model, entry['type'] as type, entry['count'] as count
from (select contribution_id, contributor, model, unnest(pii) as entry from receipts)
