"""Pages for people, below ``/projects/ID/``: no build step, nothing from another host."""
