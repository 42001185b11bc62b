"""A page of any kind of file as a picture."""

from baatcheet.attachments.contents import pdf, pictures
from baatcheet.attachments.contents.pictures import Picture
from baatcheet.attachments.ocr.engine import Page


def page_picture(page: Page) -> Picture:
    """`page` as a picture, in grey or colour. Raises Refused."""
    return pdf.picture_of(page) if page.kind == "pdf" else pictures.picture_of(page)
