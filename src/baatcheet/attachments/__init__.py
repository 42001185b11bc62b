"""Attachments: pictures and documents that users upload, and the text that is in them."""
