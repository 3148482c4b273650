-- Rows that count: their chunk is bound by an admitted receipt. Receipts of more than 1,024 chunks bind by contribution.
select rows.* from rows left semi join (
    select contribution_id as id, chunk as number, chunk_digest as digest from receipt_chunks where status = 'admitted'
) bound on rows.contribution_id = bound.id and rows.chunk = bound.number and rows.chunk_digest = bound.digest
union all
select rows.* from rows left semi join (
    select contribution_id as id from receipts where status = 'admitted' and chunks > 1024
) large on rows.contribution_id = large.id
