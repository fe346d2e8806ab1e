"""What /metrics shows, each metric once (https://prometheus.io/docs/practices/naming/)."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

REQUESTS = Counter("ls_clip_requests_total", "HTTP requests.", ["route", "status"])
REQUEST_SECONDS = Histogram(
    "ls_clip_request_seconds",
    "Time to answer an HTTP request.",
    ["route"],
    buckets=(0.01, 0.05, 0.1, 0.3, 1, 3, 10, 30, 100),
)
CONNECTIONS_CLOSED = Counter(
    "ls_clip_connections_closed_total", "Connections closed on their clients.", ["reason"]
)
PREDICTIONS = Counter("ls_clip_predictions_total", "Tasks answered by /predict.", ["outcome"])
IMAGES_ENCODED = Counter("ls_clip_images_encoded_total", "Images encoded.")
CACHE_HITS = Counter("ls_clip_embedding_cache_hits_total", "Images whose embedding was stored.")
IMAGE_FAILURES = Counter(
    "ls_clip_image_failures_total",
    "Images that could not be fetched or decoded, by reason.",
    ["reason"],
)
DIRECT_READS = Counter(
    "ls_clip_direct_reads_total",
    "Images whose files may be read without Label Studio, by place and outcome.",
    ["place", "outcome"],
)
STORE_FAILURES = Counter("ls_clip_store_failures_total", "Failed reads or writes of the store.")
FETCH_SECONDS = Histogram("ls_clip_fetch_seconds", "Time to fetch one image.")
DECODE_SECONDS = Histogram("ls_clip_decode_seconds", "Time to decode and prepare one image.")
ENCODE_SECONDS = Histogram("ls_clip_encode_seconds", "Time to encode one batch of images.")
SHARD_SECONDS = Histogram(
    "ls_clip_shard_seconds",
    "Time to embed one shard of a run.",
    buckets=(0.1, 1, 10, 30, 60, 120, 300, 600, 1800),
)
JOBS = Counter(
    "ls_clip_jobs_total", "Jobs that a worker has ended, by kind and outcome.", ["kind", "outcome"]
)
WEBHOOKS = Counter("ls_clip_webhooks_total", "Webhook calls, by action.", ["action"])
EVENTS_LOST = Counter("ls_clip_events_lost_total", "Webhook events that could not be noted.")
