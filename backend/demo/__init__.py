"""``ls-clip demo``: generated photos, local servers, and a simulated annotator."""
