"""Options, schemes and layout of an export, which are fixed before any slow work."""
