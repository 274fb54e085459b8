"""Says which Python this is, and its arguments."""

import sys

from wit_world import exports


class Run(exports.Run):
    def run(self):
        print("Python", sys.version_info.major, *sys.argv[1:])
