"""The labeling config: parsing, and the controls and labels that it declares."""
