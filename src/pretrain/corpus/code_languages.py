"""The language of a source file by its name, its ending or its first line."""

import re

BY_ENDING = {
    ending: language
    for language, endings in {
        "assembly": "asm s", "awk": "awk", "c": "c h", "c#": "cs", "c++": "cc cpp cxx hpp hh hxx ipp",
        "clojure": "clj cljs edn", "cmake": "cmake", "common lisp": "lisp cl", "crystal": "cr",
        "css": "css scss sass less", "cuda": "cu cuh", "cython": "pyx pxd", "d": "d", "dart": "dart",
        "elixir": "ex exs", "elm": "elm", "erlang": "erl hrl", "f#": "fs fsi fsx",
        "fortran": "f f77 f90 f95 f03 for", "glsl": "glsl vert frag", "go": "go", "graphql": "graphql gql",
        "groovy": "groovy gradle", "haskell": "hs lhs", "html": "html htm xhtml", "java": "java",
        "javascript": "js jsx mjs cjs", "json": "json", "julia": "jl", "kotlin": "kt kts", "latex": "tex sty cls",
        "lean": "lean", "lua": "lua", "makefile": "mk", "markdown": "md markdown", "matlab": "m", "nim": "nim",
        "nix": "nix", "objective-c": "mm", "ocaml": "ml mli", "pascal": "pas pp", "perl": "pl pm t", "php": "php",
        "powershell": "ps1 psm1", "prolog": "pro", "protocol buffers": "proto", "python": "py pyi pyw", "r": "r",
        "racket": "rkt", "restructuredtext": "rst", "ruby": "rb rake gemspec", "rust": "rs", "scala": "scala sc",
        "scheme": "scm ss", "shell": "sh bash zsh fish", "smalltalk": "st", "solidity": "sol", "sql": "sql",
        "svelte": "svelte", "swift": "swift", "systemverilog": "sv svh", "tcl": "tcl", "terraform": "tf hcl",
        "text": "txt", "toml": "toml", "typescript": "ts tsx", "verilog": "v vh", "vhdl": "vhd vhdl",
        "vim script": "vim", "vue": "vue", "xml": "xml xsd xsl", "yaml": "yaml yml", "zig": "zig",
    }.items()
    for ending in endings.split()
}  # fmt: skip
BY_NAME = {
    "makefile": "makefile", "gnumakefile": "makefile", "dockerfile": "dockerfile", "cmakelists.txt": "cmake",
    "rakefile": "ruby", "gemfile": "ruby", "build": "starlark", "build.bazel": "starlark", "workspace": "starlark",
    "jenkinsfile": "groovy", "vagrantfile": "ruby", "justfile": "just", "meson.build": "meson",
}  # fmt: skip
SHEBANG = re.compile(r"#!\s*\S*?(?:env\s+(?:-S\s+)?)?([A-Za-z]+)[\d.]*(?:\s|$)")
BY_PROGRAM = {"bash": "shell", "sh": "shell", "zsh": "shell", "node": "javascript", "rscript": "r"}
PROSE = frozenset(["latex", "markdown", "restructuredtext", "text"])  # among the files of a repository
CODE = frozenset([*BY_ENDING.values(), *BY_NAME.values(), *BY_PROGRAM.values()]) - PROSE


def language_of(path: str, text: str) -> str | None:
    """The language of a file at a path, "python"; None if nothing tells."""
    name = path.rpartition("/")[2].lower()
    if name in BY_NAME:
        return BY_NAME[name]
    if "." in name and (ending := name.rpartition(".")[2]) in BY_ENDING:
        return BY_ENDING[ending]
    found = SHEBANG.match(text[:200])
    program = found[1].lower() if found else ""
    return BY_PROGRAM.get(program, program or None)
