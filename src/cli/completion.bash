
# Bash takes words apart at ':' and '='; mossnet must see 'container:web' and '--network=web' whole.
_mossnet() {
    local i cword=0 current previous word rest=$COMP_LINE joined=()
    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $i -gt 0 && $rest != [[:space:]]* &&
            ($word == [:=]* || ${COMP_WORDS[i - 1]} == *[:=]) ]]; then
            joined[${#joined[@]} - 1]+=$word
        else
            joined+=("$word")
        fi
        if [[ -n $word ]]; then
            rest=${rest#*"$word"}
        fi
        if [[ $i -eq $COMP_CWORD ]]; then
            cword=$((${#joined[@]} - 1))
        fi
    done
    current=${joined[cword]} previous=${joined[cword > 0 ? cword - 1 : 0]}
    local COMP_WORDS=("${joined[@]}") COMP_CWORD=$cword
    _clap_complete_mossnet "$1" "$current" "$previous"
    # What stands before the last ':' or '=' is not replaced.
    local kept=${current%"${current##*[:=]}"}
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}
# In our order where bash can keep it.
complete -o nospace -o bashdefault -o nosort -F _mossnet mossnet 2>/dev/null ||
    complete -o nospace -o bashdefault -F _mossnet mossnet
