# A stand-in for tests: the little of xbps that an image build asks of a guest, by busybox, gawk, tar and zstd. It is not
# Void's. It checks no signatures and compares no versions: what it proves is how an image build uses the real one.
db=/var/db/xbps
pkgdb=$db/pkgdb-0.38.plist
arch=${XBPS_ARCH:-$(uname -m)}

# The addresses of the repositories; a file below /etc stands for the one of that name below /usr.
repositories() {
    for conf in /etc/xbps.d/*.conf /usr/share/xbps.d/*.conf; do
        [ -f "$conf" ] || continue
        case $conf in
            /usr/*) [ ! -e "/etc/xbps.d/${conf##*/}" ] || continue ;;
        esac
        sed -n 's/^repository=//p' "$conf"
    done
}

# Where the index of a repository lies.
index_of() {
    echo "$db/$(printf '%s' "$1" | tr -c 'A-Za-z0-9.\n' _)"
}

# A property list of packages as lines: NAME, KEY and VALUE, with tabs between.
flatten() {
    awk '
        function text() {
            sub(/^\t*<[a-z]+>/, "")
            sub(/<\/[a-z]+>$/, "")
            gsub(/&lt;/, "<")
            gsub(/&gt;/, ">")
            gsub(/&amp;/, "\\&")
            return $0
        }
        /^\t<key>/ { name = text(); next }
        /^\t\t<key>/ { key = text(); next }
        /^\t\t\t*<(string|integer)>/ && name !~ /^_/ { print name "\t" key "\t" text() }
        /^\t\t<true\/>/ { print name "\t" key "\ttrue" }
    '
}

# values FILE NAME KEY: of a flat list.
values() {
    awk -F '\t' -v name="$2" -v key="$3" '$1 == name && $2 == key { print $3 }' "$1"
}

# What is installed, flat.
installed() {
    [ ! -e "$pkgdb" ] || flatten <"$pkgdb"
}
