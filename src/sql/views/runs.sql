-- Training runs as they are now: one row per run.
select run_id, request_id, model, status, algorithm, seed, base_version, run_group, contract_digest, dataset_digest,
       dataset_rows, contributions, recipe_digest, iteration, iterations, artefact_digest, artefact_bytes, params,
       metrics, tags, reason, detail, benchmark, evaluation_id, search, trial, job_digest, requested_at
from (
    select run_states.*, row_number() over (
        partition by run_id
        order by case status when 'admitted' then 0 when 'running' then 1 when 'waiting' then 2 else 3 end desc, iteration desc
    ) as place from run_states
) where place = 1
