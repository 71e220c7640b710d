"""What a deployed model needs: the C interface and thread pool, and a Python loader on numpy alone.

`loader` loads and runs artifacts, `artifact` reads and writes their trailer, `features` lists what this CPU can do,
`sources` names the C files that the compiler links into every artifact.
"""
