"""Keys are planted in every store of a running deployment, everything that can fail is made to fail, and all that
comes out is searched for them.
"""
