"""The labelling page: a web page on which people rank responses, and its files in the formats of other tools.

`tokens` knows who may label, `desk` hands out items, `answers` reads a submitted form, `app` serves the page, `waiting` starts
the runs again that wait for labels, and `formats` are those of Label Studio, Potato and our own rankings.
"""
