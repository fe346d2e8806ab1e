"""The queue: worker, runs that predict in bulk, training jobs, schedule, reconciliation."""
