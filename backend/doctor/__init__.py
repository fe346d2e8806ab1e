"""``ls-clip doctor``: finds what Label Studio does not say, and names the fix."""
