"""Makes a tree of many small files, all of them different: python3 small_files.py DIRECTORY COUNT

A hundred files of 25 to 190 bytes in each directory, a hundred directories in each above, as packages have them. An object has at most a
million entries, directories included: 980,000 files are 989,898 entries.
"""

import os
import sys

top, count = sys.argv[1], int(sys.argv[2])
for number in range(0, count, 100):
    directory = f"{top}/package-{number // 10000:03d}/module_{number // 100 % 100:02d}"
    os.makedirs(directory)
    for file in range(number, min(number + 100, count)):
        with open(f"{directory}/source_{file % 100:03d}.txt", "wb", buffering=0) as out:
            out.write(f"file number {file} of many\n".encode() * (1 + file % 7))
