"""All settings, each with one name, one default and one line of documentation.

Values come from the environment, then from a ``.env`` file in the working directory. The names
below are the environment variables in lower case; docs/settings.md lists them all.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from backend.errors import SettingsError
from backend.messages.message import Message
from backend.setting_types import (
    Device,
    Goal,
    LogLevel,
    PageSecret,
    Precision,
    Regions,
    Spoken,
    split_url,
    told,
)

DEFAULT_ENCODER = "open_clip:ViT-B-16/datacomp_xl_s13b_b90k"

LOOPBACK = frozenset({"127.0.0.1", "::1", "0.0.0.0", "localhost"})
"""Names and addresses of this machine for itself."""


class Settings(Spoken):
    """The settings of one process. Secrets never show in ``repr`` or in logs."""

    label_studio_url: str = Field(
        "http://localhost:8080",
        validation_alias=AliasChoices("LS_CLIP_LABEL_STUDIO_URL", "LABEL_STUDIO_URL"),
        description="Label Studio's address as seen from the backend, without user and password.",
    )
    label_studio_public_url: str = Field(
        "",
        validation_alias=AliasChoices("LS_CLIP_LABEL_STUDIO_PUBLIC_URL", "LABEL_STUDIO_HOST"),
        description="What Label Studio calls itself (its LABEL_STUDIO_HOST), if that differs from "
        "LABEL_STUDIO_URL: images at this address are fetched from there, with the token.",
    )
    label_studio_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("LS_CLIP_LABEL_STUDIO_API_KEY", "LABEL_STUDIO_API_KEY"),
        description="A personal access token or a legacy token of a Label Studio user.",
    )
    encoder: str = Field(
        DEFAULT_ENCODER,
        description="`open_clip:MODEL/TAG`, `open_clip:MODEL/CHECKPOINT`, `hf-hub:NAME`, "
        "`local-dir:PATH` or `offline`.",
    )
    device: Device = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`.")
    precision: Precision = Field(
        "auto",
        description="`auto` (bfloat16 where the hardware supports it), `float32`, `bfloat16`, or "
        "`int8` (on CPUs: about twice as fast as float32).",
    )
    batch_size: int = Field(
        0,
        ge=0,
        le=4096,
        description="Number of images encoded at once; `0`: 32 on a CPU, as many as have 256 crops "
        "on a GPU.",
    )
    regions: Regions = Field(
        "auto",
        description="What is scored in addition to the whole image: `none`, `cells` (ninths of the "
        "one feature map), `patches` (ninths of a ViT's patches), `tiles` (3x3 crops, ten encodes "
        "per image); `auto`: cells if possible, else tiles.",
    )
    store: str = Field(
        "~/.cache/label-studio-clip/store",
        description="Where embeddings and heads are stored: a directory, or a URI that LanceDB "
        "supports (`s3://`).",
    )
    installation: str = Field(
        "",
        max_length=200,
        description="The name of this installation, the same for backend, workers and command "
        "line; default: the host, port and path of LABEL_STUDIO_URL. What is kept in the store and "
        "in Redis belongs to one installation.",
    )
    host: str = Field("127.0.0.1", description="The address `ls-clip serve` binds to.")
    port: int = Field(9090, ge=0, le=65535, description="The port `ls-clip serve` binds to.")
    threads: int = Field(64, ge=8, le=512, description="Request threads of `ls-clip serve`.")
    public_url: str = Field(
        "",
        description="The address at which Label Studio reaches this backend; default: "
        "`http://127.0.0.1:PORT`.",
    )
    basic_auth_user: str = Field(
        "",
        validation_alias=AliasChoices("LS_CLIP_BASIC_AUTH_USER", "BASIC_AUTH_USER"),
        description="User name that Label Studio must send to /setup, /predict and for "
        "START_TRAINING.",
    )
    basic_auth_pass: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("LS_CLIP_BASIC_AUTH_PASS", "BASIC_AUTH_PASS"),
        description="The password for that user name.",
    )
    webhook_secret: SecretStr = Field(
        SecretStr(""),
        description="The value that the `X-Label-Studio-Clip-Secret` header of event webhooks "
        "must have.",
    )
    admins: str = Field(
        "",
        description="Who may predict, train, cancel and roll back on the pages: email addresses "
        "of Label Studio users, with commas between them; default: whoever made the project.",
    )
    page_secret: PageSecret = Field(
        SecretStr(""),
        description="Encrypts what people paste on the pages to sign in; at least 16 characters, "
        "the same for several backends; default: a new one at each start.",
    )
    threshold: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Suggest labels from this probability on; default: where that saves clicks.",
    )
    blind_share: float = Field(
        0.05,
        ge=0.0,
        le=0.5,
        description="Share of tasks that are shown without suggestions, so that quality can be "
        "measured without influencing anyone.",
    )
    audit_share: float = Field(
        0.1,
        ge=0.0,
        le=0.5,
        description="Share of the other tasks that are used to judge heads and never to train "
        "them.",
    )
    goal: Goal = Field(
        "",
        description="The goal of a head's thresholds: `precision`, `recall` or `f1`; empty: a "
        "label is ticked where that is expected to save a click.",
    )
    goal_target: float = Field(
        0.9, gt=0.0, le=1.0, description="The precision or recall that GOAL must reach."
    )
    train_after: float = Field(
        600.0,
        gt=0,
        description="Seconds after the last approval until a head is trained on fewer approvals "
        "than would start it at once.",
    )
    reconcile_every: float = Field(
        900.0,
        gt=0,
        description="Seconds between two checks of Label Studio for approvals whose event was "
        "lost.",
    )
    refresh_every: float = Field(
        900.0,
        ge=0,
        description="Seconds between two automatic refreshes of a project's suggestions after a "
        "training; a huge import slows Label Studio down.",
    )
    predict_seconds: float = Field(
        60.0,
        gt=0,
        le=95,
        description="A /predict call answers within this many seconds; what is not ready by then "
        "stays open.",
    )
    fetch_workers: int = Field(
        8, ge=1, le=64, description="Number of images fetched at the same time."
    )
    connect_timeout: float = Field(3.0, gt=0, description="Seconds to connect to an image host.")
    fetch_timeout: float = Field(20.0, gt=0, description="Seconds for one image in total.")
    max_image_bytes: int = Field(50_000_000, ge=1024, description="A larger image file is refused.")
    max_image_pixels: int = Field(
        100_000_000, ge=1, description="An image with more pixels is refused before decoding."
    )
    decode_seconds: float = Field(
        10.0, gt=0, description="CPU seconds that decoding one image may take."
    )
    decode_memory: int = Field(
        2_400_000_000,
        ge=64_000_000,
        description="Bytes of memory for all images that are being decoded; one that needs more "
        "than three quarters of it is refused.",
    )
    allowed_hosts: str = Field(
        "",
        description="Comma-separated host names, addresses or networks that images may come from "
        "although they are private (`minio.internal,10.1.0.0/16`); needed for a private MinIO, "
        "too.",
    )
    offline: bool = Field(
        False,
        description="Refuse every image host that is neither Label Studio nor in ALLOWED_HOSTS, "
        "and every model hub.",
    )
    local_files_root: str = Field(
        "",
        description="Label Studio's LOCAL_FILES_DOCUMENT_ROOT as this process sees it: local files "
        "are read there, not fetched; empty: they are fetched.",
    )
    uploads_root: str = Field(
        "",
        description="The folder `media/upload` of Label Studio's data as this process sees it: "
        "uploads are read there, not fetched; empty: they are fetched.",
    )
    read_buckets: str = Field(
        "",
        description="Comma-separated buckets, or prefixes in them (`s3://photos/2026`), whose "
        "objects are read with this process's own credentials, not through Label Studio.",
    )
    redis_url: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("LS_CLIP_REDIS_URL", "REDIS_URL"),
        description="Redis or Valkey with the queue, `redis://HOST:6379/0`; empty: there are no "
        "workers, and `connect` predicts in its own process.",
    )
    shard_size: int = Field(
        512, ge=16, le=4096, description="Number of tasks that a worker takes at once."
    )
    import_size: int = Field(
        20_000,
        ge=1,
        le=200_000,
        description="Number of predictions sent to Label Studio in one request.",
    )
    worker_jobs: int = Field(
        200, ge=1, description="A worker process is replaced by a fresh one after this many jobs."
    )
    worker_grace: float = Field(
        30.0,
        ge=1,
        description="Seconds that a worker has to finish its current batch when it is stopped.",
    )
    worker_metrics_port: int = Field(
        0, ge=0, le=65535, description="The port on which a worker serves /metrics; 0: none."
    )
    max_body_bytes: int = Field(
        32_000_000, ge=1024, description="A larger request body is answered with 413."
    )
    receive_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="A request whose last byte has not come within this many seconds is cut off; "
        "headers have at most 10.",
    )
    log_level: LogLevel = Field("INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`.")

    @field_validator("label_studio_url", "label_studio_public_url", "public_url")
    @classmethod
    def _check_http_url(cls, value: str, info: ValidationInfo) -> str:
        value = value.strip().rstrip("/")
        parts = split_url(value)
        may_be_empty = info.field_name != "label_studio_url"
        if (value or not may_be_empty) and (
            parts.scheme not in {"http", "https"} or not parts.netloc
        ):
            raise ValueError(Message("must start with http:// or https:// and name a host"))
        # The URL appears in messages, so it must not hold a secret.
        if "@" in value:
            raise ValueError(Message("must hold neither user nor password"))
        return value

    @field_validator("store", "local_files_root", "uploads_root")
    @classmethod
    def _check_folder(cls, value: str) -> str:
        try:
            Path(value).expanduser()
        except RuntimeError as error:
            raise ValueError(
                Message("begins with ~ and the name of a user who does not exist")
            ) from error
        return value

    @field_validator("read_buckets")
    @classmethod
    def _check_buckets(cls, value: str) -> str:
        for entry in filter(None, map(str.strip, value.split(","))):
            if not re.fullmatch(r"(s3|gs|azure-blob)://[^/?#@\s]+(/[^/\s]+)*/?", entry):
                raise ValueError(
                    Message(
                        "must hold addresses such as s3://BUCKET, gs://BUCKET/PREFIX or "
                        "azure-blob://CONTAINER, and no password"
                    )
                )
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        parts = split_url(value.get_secret_value())
        if value.get_secret_value() and parts.scheme not in {"redis", "rediss", "unix"}:
            raise ValueError(Message("must start with redis://, rediss:// or unix://"))
        if parts.scheme != "unix" and "@" in parts.path + parts.query + parts.fragment:
            raise ValueError(Message("needs %2F for a / in the password, %3F for ? and %23 for #"))
        return value

    @property
    def store_uri(self) -> str:
        """``store`` with ``~`` resolved; object-store URIs are left as they are."""
        return self.store if "://" in self.store else str(Path(self.store).expanduser().resolve())

    @property
    def installation_name(self) -> str:
        """``installation``; by default Label Studio's address, without scheme and default port.

        The names of this machine for itself count as one.
        """
        if self.installation.strip():
            return self.installation.strip()
        parts = urlsplit(self.label_studio_url)
        port = "" if parts.port in {None, 80, 443} else f":{parts.port}"
        host = (parts.hostname or "").lower()
        return f"{'localhost' if host in LOOPBACK else host}{port}{parts.path}"

    @property
    def installation_id(self) -> str:
        """The name as part of a key or of a folder: readable, at most 49 characters."""
        name = self.installation_name
        readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40].rstrip("-")
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return f"{readable}-{digest}" if readable else digest

    @property
    def studio_address(self) -> str:
        """Label Studio's address, as browsers reach it."""
        return self.label_studio_public_url or self.label_studio_url

    @property
    def backend_url(self) -> str:
        """How Label Studio reaches this backend."""
        return self.public_url or f"http://127.0.0.1:{self.port}"

    @property
    def allowed_host_list(self) -> list[str]:
        """``allowed_hosts`` as a list, lower case, without blanks."""
        return [host.strip().lower() for host in self.allowed_hosts.split(",") if host.strip()]

    @property
    def admin_list(self) -> list[str]:
        """``admins`` as a list, lower case, without blanks."""
        return [email.strip().lower() for email in self.admins.split(",") if email.strip()]

    @property
    def read_bucket_list(self) -> list[str]:
        """``read_buckets`` as a list, without blanks and without slashes at the end."""
        entries = map(str.strip, self.read_buckets.split(","))
        return [entry.rstrip("/") for entry in entries if entry]

    @classmethod
    def environment_names(cls) -> dict[str, str]:
        """Field name -> the environment variable that the documentation shows."""
        return {name: f"LS_CLIP_{name.upper()}" for name in cls.model_fields}


def load_settings(**overrides: object) -> Settings:
    """Read the environment, with ``overrides`` on top (``None`` values are ignored).

    Raises:
        SettingsError: naming each variable with a value that cannot work.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except UnicodeDecodeError as error:
        raise SettingsError(
            Message("The file .env is not UTF-8."), Message("Save it as UTF-8.")
        ) from error
    except ValidationError as error:
        problems = told(error, Settings.environment_names())
        raise SettingsError(
            Message("{problems}.", problems=problems),
            Message("Correct the variable; docs/settings.md lists them all."),
        ) from error


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return load_settings()
