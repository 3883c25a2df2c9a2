"""The part of an explanation's page that has the traffic of its map."""

from __future__ import annotations

from eplb_gap.analysis.html_page import inline, table
from eplb_gap.analysis.network.report import LAYER_COLUMNS, LEGEND, heading, layer_rows, table_rows
from eplb_gap.analysis.network.served import Counted


def section(counted: Counted, layer_ids: list[int]) -> str:
    """Return traffic as HTML: all layers together, then every layer, on planned and on served tokens.

    Parameters
    ----------
    counted : Counted
        Of one map or several.
    layer_ids : list of int
        Which layer of the model every layer of the routing is.
    """
    body = [
        "<h2>Tokens over the network</h2>",
        f"<p>{inline(heading(counted))}.</p>",
        table(["planned / served", *(one.name for one in counted.maps)], table_rows(counted)),
    ]
    for one in counted.maps:
        body += [f"<p>{inline(one.name)}, layer by layer, planned / served:</p>"]
        body.append(table(list(LAYER_COLUMNS), layer_rows(one, layer_ids)))
    body += [f"<p class=note>{inline(note)}</p>" for note in (*counted.notes, LEGEND)]
    return "\n".join(body)
