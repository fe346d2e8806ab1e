"""Archives of images with known labels: a reader for each format, and the import of its rows.

The labels do not become annotations: Label Studio would count the tasks as done, and nobody would
see suggestions for the labels that are missing.
"""
