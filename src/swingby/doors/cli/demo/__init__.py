"""The demo: real files, three epochs file by file and three through Swingby."""
