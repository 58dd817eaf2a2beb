"""The command line: one file per command, joined in `main.py`.

The file's name is the command's (`list_.py` is `list`, `export_corpus.py` is `export-corpus`). It holds a function
`command`, annotated as typer wants it, or `app`, a typer group. It is imported only when it is called, so it may import
the verbs freely; what takes a second to import stays inside its functions.
"""
