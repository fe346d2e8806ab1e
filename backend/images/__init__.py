"""Image addresses in, RGB images out: address checks, downloads, decoding."""
