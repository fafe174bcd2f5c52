"""A file system as Python programs know files: paths, open files, fsspec.

All of it uses only what :class:`nrfs.Filesystem` offers, and is imported only when it is used. From the top:

- ``spec``: fsspec's interface, of which pandas and others make use;
- ``path``: ``nrfs.Path``, with the operations of :class:`pathlib.Path`;
- ``names``: that part of a path which is only about names;
- ``opened``: open files;
- ``lookup``: where a path leads.
"""
