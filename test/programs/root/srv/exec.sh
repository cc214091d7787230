#!/bin/bash
# Only builtins, then exec: no child process is made.
set -eu
declare -A count=()
while read -r word; do
	count[$word]=$(( ${count[$word]:-0} + 1 ))
done < /srv/words.txt
total=0
for w in apple pear plum; do
	printf '%-6s %d\n' "$w" "${count[$w]}"
	(( total += count[$w] ))
done
text="total: $total"
echo "${text^^}" "${text//total/sum}" "${#text}"
[[ $text =~ ([0-9]+)$ ]] && echo "matched ${BASH_REMATCH[1]}"
trap 'echo "got USR1"' USR1
kill -USR1 $$
cd /srv && echo "$PWD" *.txt
ulimit -n >/dev/null
umask 027; : > /tmp/made; [[ -f /tmp/made ]] && echo made
printf '%s\n' "${BASH_VERSINFO[0]}"
exec sort -r -u /srv/words.txt
