"""Routes: a name that stands for several models, and the choice among them. They are data, and change while serving."""
