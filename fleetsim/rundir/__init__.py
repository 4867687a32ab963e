# SPDX-License-Identifier: Apache-2.0
"""A run directory: the contract between the simulator, which writes it, and the judge, which sees nothing else.

models.py   what the files hold (pydantic)
samples.py  samples as Parquet: writing, reading in time order, their digest
writer.py   RunWriter, used by the fleet
reader.py   RunDirectory, used by the judge; refuses what is broken with one sentence
"""

from __future__ import annotations
