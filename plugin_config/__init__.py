"""Ready-made labeling configs (XML) to paste into Label Studio."""
