"""PDF: text that can be selected and searched, in every script, with contents, bookmarks and page numbers."""
