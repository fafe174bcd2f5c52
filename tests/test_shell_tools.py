"""Ordinary shell tools do on nrfs what they do on tmpfs: exit status, output, complaints, and the tree they leave.

Each case is one script, run by ``sh -eu`` in a fresh directory on both. A script says what it finds, as long as it is
the same wherever it runs: no time of day, no inode or device number. Most cases begin with ``sample``, a small tree of
all that a file system can hold (``support/shell.py``).

They need git, rsync, sqlite3, make, gcc, tar, attr and patch.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import shell
from support.mounts import Pair, configurations, more_than_cpus, mounted_pair
from support.tree import Tree, differences, snapshot

CONFIGURATIONS = configurations([1, more_than_cpus()])


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with mounted_pair(tmp_path_factory.mktemp("tmpfs"), request.param, allow_other=True) as pair:
        yield pair


@dataclass(frozen=True)
class Case:
    """One script, and what of its tree cannot be equal."""

    script: str
    not_compared: tuple[str, ...] = ()
    """Patterns of paths that hold times or inode numbers in their content, or in their names."""
    status: int = 0
    says: str | None = None
    """Part of what it must say on both, where equal silence would prove nothing."""


# fmt: off
CASES: dict[str, Case] = {
    # -- copying
    "cp -a keeps everything": Case("""
        sample a
        cp -a a b; rm a/fifo b/fifo
        diff -r --no-dereference a b && echo same
        """, says="same"),
    "cp -r, -p, -l, -s, -u, -n and --parents": Case("""
        sample a
        rm a/fifo
        cp -r a recursive
        cp -p a/text kept
        cp -l a/text linked
        cp -s a/text pointed && readlink pointed
        cp -u a/text kept
        echo new >kept; cp -n a/text kept || echo $?; cat kept
        cp --parents a/directory/below/file recursive/empty
        cp a missing || echo "status $?"
        cp a/text recursive/empty/no/such || echo "status $?"
        """, says="status 1"),
    "cp --sparse keeps and makes holes": Case("""
        truncate -s 4M holes
        printf data | dd of=holes bs=1 seek=2000000 conv=notrunc status=none
        cp --sparse=always holes always
        cp --sparse=never holes never
        cmp holes always; cmp holes never
        sync holes always never
        stat -c '%n %b' always never
        """),
    "cp onto itself, onto a directory, through a dangling link": Case("""
        sample a
        cp a/text a/directory/hardlink || echo "status $?"
        cp a/text a/empty
        cp a/text a/dangling || echo "status $?"
        cp --remove-destination a/text a/dangling && cat a/dangling
        """, says="status 1"),
    "install makes directories and sets modes and owners": Case("""
        sample a
        install -d -m 2750 -o 1000 -g 2000 made/on/the/way
        install -m 4755 -o 1000 -g 2000 -p a/text made/program
        install -D a/text some/where/else
        install -b -S .old a/script made/program
        stat -c '%n %a %u %g %s' made made/* some/where/else
        """),
    "mv moves, replaces, keeps and refuses": Case("""
        sample a
        mv a/text a/empty/moved && cat a/empty/moved a/directory/hardlink
        mv -n a/nothing a/script; ls a/nothing
        mv -f a/nothing a/script
        mv a/directory a/empty/
        mv a/empty a/empty/directory/below || echo "status $?"
        mv -T 'a/with space' a/empty || echo "status $?"
        mkdir a/vacant; mv -T a/vacant a/vacated
        mv --backup=numbered a/script a/sparse; ls a
        mv a/no a/where || echo "status $?"
        """, says="status 1"),
    "rsync -a copies, and a second run finds nothing to do": Case("""
        sample a
        rsync -aHX a/ b/
        diff -r --no-dereference a b && echo same
        rsync -aHXi a/ b/
        echo "nothing to do above"
        echo more >>a/text
        rm -r 'a/with space'
        rsync -aHXi --delete a/ b/
        rsync -aHXi --checksum --delete a/ b/
        """, says=">f.st"),
    "rsync --inplace, --sparse, --append and --link-dest": Case("""
        sample a
        rsync -a --inplace a/text b
        echo tail >>a/text; rsync -a --append a/text b; cat b
        truncate -s 3M holes; echo x >>holes; rsync -aS holes sparse; cmp holes sparse
        rsync -a a/ first/; rsync -a --link-dest="$PWD/first" a/ second/
        stat -c '%n %h' first/text second/text first/script
        """),
    # -- archives
    "tar in and out": Case("""
        sample a
        tar --xattrs --sort=name -cf a.tar a
        tar -tf a.tar
        mkdir out; tar --xattrs -xpf a.tar -C out
        rm -f a/fifo; mv out/a/fifo .; diff -r --no-dereference a out/a && echo same; mv fifo out/a
        tar -df a.tar -C out && echo "no difference"
        """, not_compared=("a.tar",), says="no difference"),
    "tar through a pipe, with holes, and updating": Case("""
        sample a
        mkdir b; tar -C a -cSf - . | tar -C b -xpSf -; rm a/fifo b/fifo
        diff -r --no-dereference a b
        tar -cf u.tar -C a text; echo newer >a/text; tar -uf u.tar -C a text; tar -tf u.tar
        tar -xf u.tar -O text
        tar -xf u.tar --keep-old-files -C a || echo "status $?"
        """, not_compared=("u.tar",), says="status 2"),
    "gzip and gunzip, and tar through them": Case("""
        sample a
        tar --sort=name -czf a.tgz a; tar -tzf a.tgz | wc -l
        gzip -k -n a/script; zcat a/script.gz; gzip -t a/script.gz; gzip a/text || echo "status $?"
        gunzip -f a/script.gz; stat -c '%a %s %y' a/script
        """, not_compared=("a.tgz",)),
    # -- looking
    "find by every test": Case("""
        sample a
        find a | sort
        for test in '-type f' '-type d' '-type l' '-type p' '-empty' '-perm -4000' '-perm /022' '-links +1' \\
            '-links 2' '-size +9k' '-size 0' '-user 1000' '-group 2000' '-name *e*' '-newermt 2001-02-03' \\
            '-newer a/text' '-lname *text' '-xtype l' '-samefile a/text' '-path */below/*' '-maxdepth 1' \\
            '-mindepth 3' '-executable' '-nouser'; do
            set -f; echo "$test"; find a $test -printf '  %P %y %m %n %u %g %l\\n' | sort; set +f
        done
        find -L a -name large | sort
        """),
    "find -delete, -exec, -ok and -print0": Case("""
        sample a
        find a -type f -print0 | sort -z | xargs -0 -n 2 echo
        find a -name binary -exec chmod 644 {} + -exec stat -c '%n %a' {} +
        find a -name below -delete || echo "status $?"
        find a -depth -delete; ls
        """, says="status 1"),
    "grep -r finds in every file and skips what is none": Case("""
        sample a
        rm a/fifo
        grep -r o a | sort
        grep -rl three a | sort
        grep -c x a/directory/large
        grep -r zebra a || echo "status $?"
        grep -R two a | sort
        grep -rI a a | sort; grep -rL o a | sort
        """, says="status 1"),
    "diff -r tells what differs": Case("""
        sample a
        cp -a a b
        rm a/fifo b/fifo
        diff -r --no-dereference a b && echo same
        echo four >>b/text; rm b/script; ln -sf elsewhere b/dangling; echo new >b/empty/new
        diff -r --no-dereference a b || echo "status $?"
        diff -rq --no-dereference a b || echo "status $?"
        """, says="status 1"),
    "ls -laR": Case("""
        sample a
        ls -laR --time-style=full-iso a | sed 's/^\\(d[^ ]* .*\\) 2[0-9-]* [0-9:.]* +0000 \\.\\.$/\\1 ../'
        ls -1 a; ls -F a; ls -m a; ls -S a; ls -d a/*/; ls -A a/empty; ls -lhn a/directory --time-style=+%s
        ls a/missing || echo "status $?"
        """, says="status 2"),
    "ls sorts by time and by size": Case("""
        for number in 5 3 1 4 2; do head -c $number /dev/zero >$number; touch -d "2001-01-0$number" $number; done
        ls -t; ls -tr; ls -S; ls -U | sort; ls --full-time | tail -n +2
        """),
    "stat in many formats": Case("""
        sample a
        stat -c '%n %a %A %F %h %u %g %U %G %s %o %B %t %T %N %x %X %y %Y' \\
            a/text a/directory a/dangling a/fifo a/sparse a/nothing
        stat -L -c '%n %F %s' a/directory/symlink a/'linked directory'
        stat -L a/dangling || echo "status $?"
        stat -f -c '%l %s %S' a
        """, says="status 1"),
    "du, apparent and real": Case("""
        sample a
        rm a/fifo
        find a -type f -exec sync {} +
        du -al --apparent-size -B1 a | sort -k 2
        du -al -k a | sort -k 2
        du -s a; du -sk --exclude=large a; du --inodes -s a
        """),
    "df tells a mount of its own, and that what is written counts": Case("""
        test "$(stat -c %m .)" = "$(df --output=target . | tail -n 1)" && echo "one mount"
        before=$(df -k --output=used . | tail -n 1)
        head -c 8388608 /dev/zero >file; sync file
        after=$(df -k --output=used . | tail -n 1)
        echo $((after - before))
        df --output=size -k . | tail -n 1
        df missing || echo "status $?"
        """, says="8192"),
    "md5sum and sha256sum, and checking them": Case("""
        sample a
        find a -type f -exec md5sum {} + | sort >sums
        md5sum -c sums
        sha256sum a/text a/directory/large
        echo x >>a/text; md5sum -c --quiet sums || echo "status $?"
        """, says="status 1"),
    "file, wc, od, head, tail, nl, cut, tr, comm, join, paste, uniq": Case("""
        sample a
        wc a/text a/directory/large a/nothing
        od -c a/directory/binary; head -n 2 a/text; tail -c 5 a/text; tail -n +2 a/text; nl a/text
        cut -c 2 a/text | tr a-z A-Z; paste a/text a/text; comm a/text a/directory/hardlink; uniq -c a/text
        """),
    # -- removing
    "rm -rf": Case("""
        sample a
        mkdir -p a/many; (cd a/many; seq 1 500 | xargs touch; seq 1 100 | sed 's/^/d/' | xargs mkdir)
        rm -rf a; ls
        rm missing || echo "status $?"; rm -f missing
        mkdir d; rm d || echo "status $?"; rm -d d
        """, says="status 1"),
    "rmdir refuses what is not empty": Case("""
        mkdir -p a/b/c; echo x >a/file
        rmdir a || echo "status $?"
        rmdir a/file || echo "status $?"
        rmdir -p a/b/c || echo "status $?"
        ls -R
        """, says="Directory not empty"),
    "unlink and shred -u": Case("""
        echo x >a; ln a b; unlink a; cat b
        mkdir d; unlink d || echo "status $?"
        head -c 5000 /dev/zero >secret; shred -n 1 -u secret; ls
        """, says="Is a directory"),
    # -- links
    "ln, hard and symbolic": Case("""
        sample a
        ln a/text a/again; stat -c %h a/text; test a/text -ef a/again && echo "one file"
        ln a/text a/again || echo "status $?"
        ln a/directory a/link || echo "status $?"
        ln -f a/script a/again; ln -s text a/soft; ln -sf script a/soft; readlink a/soft
        ln -sfn empty 'a/linked directory'; readlink 'a/linked directory'
        ln -s loop a/loop; cat a/loop || echo "status $?"
        readlink -f a/directory/symlink; realpath a/directory/symlink; readlink -e a/dangling || echo "status $?"
        ln -sr a/text a/directory/below/relative; readlink a/directory/below/relative; ln -P a/dangling a/hard
        readlink a/hard
        """, says="Too many levels of symbolic links"),
    # -- attributes
    "chmod in numbers and letters": Case("""
        sample a
        umask 027; mkdir m; : >m/f; stat -c '%n %a' m m/f
        chmod 0 a/text; chmod u+rwx,g=rx,o-r a/script; chmod a+X -R a/directory; chmod +t a/empty; chmod g-s a/directory
        chmod u+s,g+s a/script; chmod --reference=a/script a/text
        find a ! -type l -printf '%P %m\\n' | sort
        chmod 999 a/text || echo "status $?"; chmod 644 a/dangling || echo "status $?"
        """, says="status 1"),
    "chown and chgrp": Case("""
        sample a
        chmod 6755 a/script; chown 5:6 a/script; chown -R 1000 a/directory; chown -h 7:8 a/dangling; chgrp 9 a/text
        chown --reference=a/script a/empty; chown -R -L 3 'a/linked directory'
        find a -printf '%P %u %g %m\\n' | sort
        chown nobodyknows a/text || echo "status $?"
        """, says="invalid user"),
    "touch -d, -r, -a, -m, -c and -h": Case("""
        touch -d '1999-12-31 23:59:59.123456789 UTC' a; touch -r a b; touch -a -d '2000-01-01 UTC' b
        touch -m -d '1960-01-01 00:00:00.5 UTC' c; touch -c missing; ls
        touch -d @4294967296 d; touch -d '2500-01-01 UTC' e; touch -t 203801190314.08 f; touch -d '1901-01-01 UTC' g
        ln -s a link; touch -h -d '2010-01-01 UTC' link; ln -s nowhere dangling; touch dangling; ls
        stat -c '%n %y' a b c d e f g link; stat -c '%n %x' a b link
        test a -ot b || echo "not older"; test d -nt a && echo newer
        """),
    "getfattr and setfattr": Case("""
        sample a
        setfattr -n user.shape -v round a/text; setfattr -n user.empty a/text
        setfattr -n trusted.secret -v 0x00ff a/directory
        getfattr -d -m - -e hex a/text a/directory
        setfattr -x user.shape a/text; setfattr -x user.shape a/text || echo "status $?"
        setfattr -h -n user.a -v b a/dangling || echo "status $?"
        setfattr -n user.a -v b a/fifo || echo "status $?"
        setfattr -n nosuch.a -v b a/text || echo "status $?"
        cp --preserve=xattr a/text copy; getfattr -d copy
        """, says="Operation not supported"),
    "umask decides what programs make": Case("""
        umask 0; mkdir zero; : >zero/f; mkfifo zero/p; ln -s f zero/l
        umask 077; mkdir narrow; : >narrow/f; mkfifo narrow/p
        umask 777; : >none; mkdir shut
        stat -c '%n %a' zero zero/* narrow narrow/* none shut
        """),
    "test knows types and permissions": Case("""
        sample a
        for file in a/text a/nothing a/directory a/fifo a/dangling a/script a/empty a/missing; do
            for test in b c d e f g G h k L N O p r s S u w x; do
                if [ -$test $file ]; then printf ' %s' $test; fi
            done; echo " $file"
        done
        """, says="p"),
    # -- content
    "dd with bs, skip, seek, count and conv": Case("""
        seq 1 5000 >a
        dd if=a of=b bs=512 status=none; cmp a b
        dd if=a of=c bs=1000 skip=2 count=3 seek=5 status=none; stat -c %s c; md5sum c
        dd if=a of=b bs=100 count=1 seek=7 conv=notrunc status=none; md5sum b
        dd if=a of=b bs=100 count=1 seek=3 status=none; stat -c %s b
        dd if=/dev/zero of=s bs=64k count=16 conv=sparse status=none; stat -c %s s; sync s; stat -c %b s
        dd if=a of=u bs=1k conv=ucase,fsync status=none; dd if=a of=e conv=excl,nocreat status=none || echo "status $?"
        dd if=a of=d bs=4096 oflag=direct,append conv=notrunc status=none; cmp a d
        dd if=a of=y bs=4096 oflag=sync conv=fdatasync status=none; dd if=y iflag=direct bs=4096 status=none | md5sum
        dd if=a of=a conv=notrunc bs=10 count=5 seek=1 status=none; head -n 3 a
        """),
    "truncate to, by, at most and at least": Case("""
        seq 1 1000 >a
        for size in 100 +50 -20 '<90' '>95' %64 /10 1M 0; do truncate -s "$size" a; stat -c %s a; done
        truncate -s 1T huge; stat -c %s huge; truncate -r a huge; stat -c %s huge
        truncate -c -s 5 missing; ls
        """),
    "split and cat": Case("""
        seq 1 3000 >a
        split -b 1000 a bytes.; split -l 700 -d a lines.; split -n 3 a parts.; ls
        cat bytes.* | cmp - a; cat lines.* | cmp - a; cat parts.* | cmp - a
        cat a >>a.copy; cat a a >a.twice; wc -c a.*; cat a >>a 2>&1 || echo "status $?"
        cat missing || echo "status $?"; tac a | head -n 1
        """, says="status 1"),
    "sort -o onto its own input, sort -u, shuf, tee": Case("""
        seq 1 20000 | shuf --random-source=/dev/zero >a
        sort -n -o a a; seq 1 20000 | cmp - a
        sort -S 64k -T . -r a | md5sum; sort -u a a | wc -l
        seq 1 5 | tee one two >three; tee -a one <two >/dev/null; cat one; cmp two three
        """),
    "sed -i, with and without a backup": Case("""
        sample a
        ln -s text a/soft
        sed -i s/two/2/ a/text; cat a/text; stat -c '%h %a' a/text a/directory/hardlink
        sed -i.bak -e '1d' a/script a/directory/below/file; ls a a/directory/below
        sed -i --follow-symlinks s/three/3/ a/soft; cat a/soft; readlink a/soft
        sed -i s/x/y/ a/missing || echo "status $?"
        """, says="No such file"),
    "patch forth and back": Case("""
        seq 1 50 >a; sed -e 's/^7$/seven/' -e '30d' -e '$a end' a >b
        diff -u --label a --label b a b >p || true
        cp a c; patch -s c <p; cmp b c; patch -s -R c <p; cmp a c
        mkdir tree; cd tree
        printf -- '--- /dev/null\\n+++ b/new/file\\n@@ -0,0 +1 @@\\n+made\\n' | patch -s -p1
        cat new/file; cd ..
        patch -s -f c </dev/null; echo garbage | patch -f c || echo "status $?"
        """, says="status 2"),
    "xargs in parallel writes every file": Case("""
        mkdir out
        seq 1 200 | xargs -P 8 -I{} sh -c 'echo {} >out/{}; mv out/{} out/done.{}'
        ls out | wc -l; cat out/* | sort -n | cmp - - && cat out/* | sort -n | md5sum
        seq 1 100 | xargs -P 4 -n 10 sh -c 'for n; do echo $n >>appended; done' sh; sort -n appended | md5sum
        """, not_compared=("appended",), says="200"),
    "mktemp makes what nobody has": Case("""
        for number in 1 2 3 4 5; do mktemp -p . ; mktemp -d -p . name.XXXX; done | wc -l
        for file in *; do
            if [ -d $file ]; then stat -c 'directory %a' $file; else stat -c 'file %a %s' $file; fi
        done | sort | uniq -c
        mktemp -p ./missing || echo "status $?"
        rm -r ./*
        """, says="5 directory 700"),
    "here-documents, appending and noclobber": Case("""
        cat <<END >a
        text
END
        echo more >>a; cat a; set -C; (echo no >a) 2>/dev/null || echo "status $?"; echo yes >|a; set +C; cat a
        exec 3<>a; echo rw >&3; read line <&3 || true; exec 3>&-; cat a
        : >a; cat a; (echo closed >&4) 2>/dev/null || echo "status $?"
        """, says="status"),
    "flock keeps others out until it is released": Case("""
        exec 9>lock; flock 9
        flock -n lock echo taken || echo "busy $?"
        flock -s -n lock echo shared || echo "busy $?"
        exec 9>&-
        flock -n lock echo free
        exec 8<lock 7<lock; flock -s 8; flock -s -n 7 && echo "both read"; flock -x -n 7 || echo "busy $?"
        """, says="busy 1"),
    "a fifo carries bytes from one process to another": Case("""
        mkfifo p
        (seq 1 10000 >p) & md5sum <p; wait
        stat -c '%F %s' p
        """, says="fifo 0"),
    "cmp and diff on files that a mapping reads": Case("""
        head -c 3000000 /dev/zero | tr '\\0' 'q' >a; cp a b; cmp a b
        printf Q | dd of=b bs=1 seek=2999999 conv=notrunc status=none
        cmp a b || echo "status $?"; cmp -n 2999999 a b && echo "same so far"
        """, says="differ: char 3000000"),
    # -- programs
    "a script and a program run from the file system": Case("""
        printf '#!/bin/sh\\necho "script $1"\\n' >s; ./s x || echo "status $?"; chmod +x s; ./s x
        cp /bin/echo e; ./e program; mkdir d; cp -p e d/e; PATH="$PWD/d" e found
        chmod -x e; ./e || echo "status $?"; echo '#!/no/such' >n; chmod +x n; ./n || echo "status $?"
        """, not_compared=("e", "d/e"), says="script x"),
    "a running program cannot be written": Case("""
        cp /bin/cat s; mkfifo p; ./s <p >o & pid=$!
        exec 9>p; echo runs >&9
        while ! readlink /proc/$pid/exe | grep -q /s$; do :; done
        (echo x >s) 2>/dev/null && echo written || echo refused
        cp /bin/cat n; mv n s; exec 9>&-; wait $pid; cat o; cmp s /bin/cat && echo replaced
        """, says="refused"),
    "make and gcc build a program, which runs": Case(r"""
        mkdir src
        cat >src/main.c <<'END'
        #include <dirent.h>
        #include <stdio.h>
        #include <string.h>
        #include "greeting.h"
        int main(int argc, char **argv) {
            FILE *out = fopen("out.txt", "w+");
            fprintf(out, "%s, %s\n", GREETING, argc > 1 ? argv[1] : "nobody");
            rewind(out);
            char line[100];
            fgets(line, sizeof line, out);
            fputs(line, stdout);
            int entries = 0;
            DIR *directory = opendir(".");
            for (struct dirent *entry; (entry = readdir(directory));)
                entries += entry->d_name[0] != '.';
            printf("%d entries\n", entries);
            return fclose(out) + closedir(directory);
        }
END
        echo '#define GREETING "hello"' >src/greeting.h
        printf 'program: src/main.o\n\tgcc -o $@ $<\n' >Makefile
        printf 'src/main.o: src/main.c src/greeting.h\n\tgcc -c -g -o $@ $<\n' >>Makefile
        make; ./program world
        make
        touch -d 2001-01-01 src/*.[ch]; make
        echo '#define GREETING "good day"' >src/greeting.h; touch -d '2100-01-01' src/greeting.h; make 2>/dev/null
        ./program
        ar rcs lib.a src/main.o; ar t lib.a
        """, not_compared=("program", "src/main.o", "lib.a"), says="good day, nobody"),
    "git init, add, commit, status, branch, merge, gc and fsck": Case("""
        git init -q -b main repository; cd repository
        sample a; rm a/fifo
        git add .; git status --short
        git commit -q -m first; git log --format='%H %s' --stat
        git checkout -q -b other; echo four >>a/text; git mv a/script a/renamed; git commit -q -a -m second
        git checkout -q main; echo x >a/directory/below/file; git rm -q --cached a/nothing; git commit -q -a -m third
        git merge -q -m merged other; git log --format='%h %p %s' --graph
        git status --short; git diff HEAD~1 --stat
        git -c pack.threads=1 gc -q; git count-objects; git fsck --full --strict 2>&1
        git stash list; echo dirty >>a/text; git stash -q; git status --short; git stash pop -q; git status --short
        git clean -q -f; git reset -q --hard; git rev-parse HEAD; git worktree add -q ../tree other; ls ../tree/a
        git clone -q . ../clone; git -C ../clone log -1 --format=%H
        """, not_compared=("*/.git/*", "tree/.git")),
    "sqlite3 creates, inserts, rolls back, vacuums, checks": Case("""
        sqlite3 db 'PRAGMA journal_mode=DELETE; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);'
        sqlite3 db "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000)
            INSERT INTO t SELECT i, hex(i*i) FROM n;"
        sqlite3 db 'BEGIN; DELETE FROM t; ROLLBACK; SELECT count(*), sum(length(b)) FROM t;'
        sqlite3 db 'CREATE INDEX b ON t(b); DELETE FROM t WHERE a%3=0; VACUUM; PRAGMA integrity_check;'
        sqlite3 db 'SELECT * FROM t ORDER BY b LIMIT 3;'
        sqlite3 db 'PRAGMA journal_mode=TRUNCATE; UPDATE t SET b=a; PRAGMA quick_check;'
        ls
        """, says="ok"),
    "sqlite3 in WAL mode, by several processes": Case("""
        sqlite3 db 'PRAGMA journal_mode=WAL; CREATE TABLE t(a, b);'
        for process in 1 2 3 4; do
            for row in $(seq 1 10); do
                sqlite3 -cmd '.timeout 60000' db "INSERT INTO t VALUES($process, $row);"
            done &
        done; wait
        sqlite3 db 'SELECT a, count(*), sum(b) FROM t GROUP BY a; PRAGMA integrity_check;'
        sqlite3 db 'PRAGMA wal_checkpoint(TRUNCATE);'
        ls
        """, not_compared=("db",), says="4|10|55"),
    "python writes, imports, and walks": Case("""
        mkdir package; echo 'VALUE = 5' >package/__init__.py; echo 'from package import VALUE; print(VALUE)' >main.py
        PYTHONPATH=. python3 main.py; PYTHONPATH=. python3 main.py; ls package/__pycache__ | wc -l
        python3 -c '
import os, shutil, mmap
for top, directories, files in sorted(os.walk(".")): print(top, sorted(directories), len(files))
shutil.copytree("package", "copy"); shutil.rmtree("package"); print(sorted(os.listdir(".")))
with open("m", "w+b") as file:
    file.truncate(8192); mapping = mmap.mmap(file.fileno(), 8192); mapping[4090:4100] = b"0123456789"; mapping.flush()
    print(os.pread(file.fileno(), 10, 4090))
'
        """, not_compared=("*/__pycache__/*",), says="b'0123456789'"),
    # -- many
    "five thousand files in one directory": Case("""
        mkdir d; cd d
        seq 1 5000 | xargs touch
        ls | wc -l; ls -U | sort -n | md5sum; find . -name '*7' | wc -l
        seq 1 2 5000 | xargs rm; ls | wc -l; stat -c %s .
        cd ..; rm -r d; ls
        """, says="2500"),
    "a tree a hundred directories deep": Case("""
        path=.; for level in $(seq 1 100); do path=$path/level$level; mkdir $path; done; echo deep >$path/file
        find . -name file -exec cat {} +; find . | wc -l; cp -a level1 copy; diff -r level1 copy && echo same
        rm -r level1; ls
        """, says="same"),
    "a path longer than PATH_MAX": Case("""
        name=$(printf '%0250d' 0)
        for level in $(seq 1 20); do mkdir $name; cd -P $name; done
        echo bottom >file; cat file; pwd -P | sed "s|^$TOP||" | wc -c
        cd "$TOP"; find . -name file | wc -c; rm -r $name; ls
        """),
}
# fmt: on


@pytest.mark.parametrize("name", CASES)
def test_tools(pair: Pair, name: str) -> None:
    case = CASES[name]
    places = pair.directories(name)
    expected, actual = (shell.run(case.script, place) for place in places)
    assert (expected.status, expected.errors if expected.status else "") == (case.status, ""), expected
    assert case.says is None or case.says in expected.output + expected.errors, expected
    assert actual == expected
    assert differences(*(_comparable(case, place) for place in places)) == []


def _comparable(case: Case, place: Path) -> Tree:
    """The tree without what the case does not compare."""
    tree = snapshot(place)
    return {path: entry for path, entry in tree.items() if not _matches(path, case.not_compared)}


def _matches(path: bytes, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(path.decode(errors="replace"), pattern) for pattern in patterns)
