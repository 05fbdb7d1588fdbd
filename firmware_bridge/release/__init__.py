"""The release check: may a policy drive a board? Its runs, its gates, and the verdict that a device key signs."""
