"""Who may command a board: key files, the keys of a session, the tag of a frame (docs/security.md)."""
