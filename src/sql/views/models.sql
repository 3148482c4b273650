-- Models as they are now: one row per model.
select model_revisions.* from model_revisions left semi join (
    select model as name, max(revision) as newest from model_revisions group by model
) latest on model_revisions.model = latest.name and model_revisions.revision = latest.newest
