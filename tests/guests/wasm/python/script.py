"""Runs whatever script it is given: its path, and arguments.

What scripts may import is imported here: a component has of Python's files those that it was made with.
"""

import argparse, asyncio, base64, bisect, calendar, collections, configparser, contextlib, copy, csv
import dataclasses, datetime, decimal, difflib, enum, fractions, functools, glob, hashlib, heapq, html, io
import itertools, json, logging, math, operator, os, pathlib, pprint, queue, random, re, secrets, shlex
import shutil, socket, statistics, string, struct, sys, tempfile, textwrap, time, traceback, types, typing
import unicodedata, urllib.parse, uuid, zlib

from wit_world import exports


class Run(exports.Run):
    def run(self):
        del sys.argv[0]
        path = sys.argv[0]
        sys.path.insert(0, os.path.dirname(path))
        try:
            code = compile(pathlib.Path(path).read_bytes(), path, "exec")
            exec(code, {"__name__": "__main__", "__file__": path})
        except SystemExit:
            raise
        except BaseException:
            traceback.print_exc()
            sys.exit(1)
