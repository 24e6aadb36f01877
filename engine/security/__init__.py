"""Who gets in: tokens and their roles, what one client may take, and whether an engine may be reached at all."""
