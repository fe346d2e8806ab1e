"""The file formats of an export: one module each, behind the rows of `backend.projects.export`."""
