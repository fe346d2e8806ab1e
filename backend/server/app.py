"""The WSGI application: all routes that docs/http.md lists, for one process.

Label Studio calls the ones in `ml_routes` (https://labelstud.io/guide/ml_create) and
`webhook_routes`. It shows no error of a backend to anyone, so each one is logged and counted here.
"""

from __future__ import annotations

from flask import Flask

from backend.runtime import Runtime
from backend.server import errors, metrics, ml_routes, run_routes, state, webhook_routes
from backend.server.pages import access as pages
from backend.server.pages import routes as page_routes


def create_app(runtime: Runtime) -> Flask:
    """The WSGI application of one process."""
    app = Flask("label-studio-clip", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = runtime.settings.max_body_bytes
    state.attach(app, runtime)
    pages.attach(app, runtime.settings)
    for blueprint in (
        ml_routes.blueprint,
        webhook_routes.blueprint,
        run_routes.blueprint,
        metrics.blueprint,
        page_routes.blueprint,
    ):
        app.register_blueprint(blueprint)
    metrics.observe_requests(app)
    errors.register_handlers(app)
    return app
