# Whatever locale the client asks for, only this one is installed to begin with.
[ -n "${LANG:-}" ] || export LANG=C.UTF-8
if [ -n "${BASH_VERSION:-}" ]; then
    # At once, so that nothing typed is lost with the machine.
    PROMPT_COMMAND='history -a'
fi
