-- Versions of the models as they are now: one row per model and version.
select model, entry['version'] as version, entry['stage'] as stage, entry['origin'] as origin,
       entry['revision'] as revision, entry['artefact_digest'] as artefact_digest,
       entry['artefact_bytes'] as artefact_bytes, entry['media_type'] as media_type,
       entry['contract_digest'] as contract_digest, entry['features_digest'] as features_digest,
       entry['parent'] as parent, entry['dataset_digest'] as dataset_digest, entry['dataset_rows'] as dataset_rows,
       entry['contributions'] as contributions, entry['run_id'] as run_id, entry['recipe_digest'] as recipe_digest,
       entry['benchmark'] as benchmark, entry['contributor'] as contributor, entry['signer'] as signer,
       entry['command_id'] as command_id, entry['params'] as params, entry['metrics'] as metrics,
       entry['tags'] as tags, entry['evaluations'] as evaluations
from (select model, unnest(versions) as entry from models)
