"""Warren: a declarative WireGuard mesh.

One file says which machines exist, which are controllers (public endpoints, they route) and which are peers.
The folders below are the stages of the flow, in order; a lower stage never imports a higher one:

    inventory   what the operator wrote            text -> Inventory              operator
    network     the whole mesh as one document     Inventory + vars -> Document   operator
    plan        what one machine should be         Document + me -> Desired       machine, and operator (preview)
    render      values as text for people                                         operator
    vars        generated values, kept on disk                                    operator
    workspace   the operator's folder: all of the above, read and written         operator
    host        this machine's kernel and files    observe, perform               machine
    agent       desired x observed -> steps -> performed -> observed again        machine
    fleet       many machines over ssh: install, update                           operator
    lab         a mesh of namespaces on one box                                   operator
    cli         commands: parse, call, print, exit code                           both

`wireguard` holds WireGuard's own words, `names` the names, `errors` every exception. What a machine runs
(`wireguard`, `network.document`, `plan`, `host`, `agent`) needs nothing but Python's standard library.
"""

__version__ = "0.1.0"
