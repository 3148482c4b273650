-- Chunks that a receipt binds: one row per receipt and chunk (none for receipts of more than 1,024 chunks).
select contribution_id, contributor, model, status, entry['chunk'] as chunk, entry['chunk_digest'] as chunk_digest,
       entry['rows'] as rows, entry['root'] as root
from (select contribution_id, contributor, model, status, unnest(bound) as entry from receipts)
