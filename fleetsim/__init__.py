# SPDX-License-Identifier: Apache-2.0
"""fleetsim: simulate fleets of Linux hosts, break their memory on purpose, and see whether any alert noticed.

Words with one meaning each (the full list is in ARCHITECTURE.md): a *host* is simulated; the *kernel* is Linux only;
a *law* is one short compiled function; a *task* is a simulated process; a *group* is the pages of one area that are
statistically alike; a *fault* goes wrong on purpose; an *impact* is a measured harm; a *verdict* is what the judge says.
"""

__version__ = "0.1.0"
