"""Policies for serving systems that take one from outside; what all of them share.

A system starts a plug-in without arguments, so its settings come from the environment. They are read once, where the plug-in is
registered, with the files that they name (:mod:`eplb_gap.heuristics.plugins.settings`):

=======================  ===============================================================================================
``EPLB_GAP_METHOD``      key of :data:`eplb_gap.heuristics.METHODS`; without it "fast"; with "host" the host's own policy answers
``EPLB_GAP_CONFIG``      path of a configuration to run in place of a named method (:mod:`eplb_gap.heuristics.config_file`)
``EPLB_GAP_THRESHOLD``   least part of its largest GPU load that a layer must gain to be changed, as "0.02"; without it any gain
``EPLB_GAP_CONTROLLER``  controller of :mod:`eplb_gap.heuristics.control` in place of these three, as for ``eplb-gap replay``:
                         ``budgeted:interval=2,window=4,moves=0.02``, or a TOML file of one ``[[controller]]``; what a step of
                         it is in a server: :mod:`eplb_gap.heuristics.plugins.hosted`
``EPLB_GAP_MAP``         file of a planned map (:data:`eplb_gap.problem.formats.maps.maps.MAP_FORMATS`), served by the first
                         call with loads for its layers, slots, experts; later ones plan, or the controller ``none``
                         keeps it
``EPLB_GAP_THREADS``     threads of the method "fast" and its kin (:mod:`eplb_gap.heuristics.planner.fast`); without it one
``EPLB_GAP_INTERPRET``   "0" compiles before the first answer, in this process (:mod:`eplb_gap.heuristics.tiers`)
``EPLB_GAP_RECORD``      folder that every call is recorded in, under any method (:mod:`eplb_gap.heuristics.plugins.recording`)
``EPLB_GAP_RECORD_MB``   megabytes that the folder may hold, the oldest calls removed; without it 512
=======================  ===============================================================================================

An empty value is none. A variable ``EPLB_GAP_...`` of another name is a warning where the plug-in is registered, and no more: the
policy plans as if it were not set (:mod:`eplb_gap.heuristics.plugins.variables`). Every rank of a server plans for itself and
must come to the same map: all need the same settings, of which each logs a digest; in it counts what answers depend on, not where
they are recorded. Every call goes through :func:`eplb_gap.heuristics.plugins.calls.answer`: what it hands to the host has been
checked, whatever fails is a line of the logger "eplb_gap", at most one a minute, and then the host's own policy answers.

This module imports nothing: a host imports it in processes that will never plan.
"""

METHOD, CONFIG, THRESHOLD = "EPLB_GAP_METHOD", "EPLB_GAP_CONFIG", "EPLB_GAP_THRESHOLD"
CONTROLLER, MAP = "EPLB_GAP_CONTROLLER", "EPLB_GAP_MAP"
RECORD, MEGABYTES = "EPLB_GAP_RECORD", "EPLB_GAP_RECORD_MB"
DECIDING = (METHOD, CONFIG, THRESHOLD, CONTROLLER, MAP)
"""What answers depend on."""
SETTINGS = (*DECIDING, RECORD)
"""What a plug-in is asked for; the others say how."""
PREFIX = "EPLB_GAP_"
KNOWN = (*SETTINGS, MEGABYTES, "EPLB_GAP_THREADS", "EPLB_GAP_INTERPRET", "EPLB_GAP_HOSTS", "EPLB_GAP_PUBLIC_LOADS")
"""All variables that this project reads, also outside of plug-ins."""
HOST = "host"
"""The method that leaves every answer to the host's own policy."""
