"""The labelling page: a web page on which people rank responses, and its files in the formats of other tools.

`tokens` knows who may label, `desk` hands out items, `answers` reads a submitted form, `app` serves the page, and
`exchange` reads and writes the formats of Label Studio and Potato.
"""
