"""The file formats of serving systems: recorded loads in, maps in and out; one module per format."""

from eplb_gap.problem.formats.loads.recorded import LOAD_FORMATS, read
from eplb_gap.problem.formats.loads.recording import grouped
from eplb_gap.problem.formats.maps.maps import MAP_FORMATS, read_map, write_map

__all__ = ["LOAD_FORMATS", "MAP_FORMATS", "grouped", "read", "read_map", "write_map"]
