"""Reading the text in a picture: engines behind one interface."""
