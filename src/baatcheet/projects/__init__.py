"""Projects: folders of conversations."""
