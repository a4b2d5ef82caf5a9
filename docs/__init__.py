"""The course as a site: `python -m docs` writes the pages that come from the code and builds everything with Sphinx."""
