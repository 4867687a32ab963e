// SPDX-License-Identifier: Apache-2.0
// A program that does nothing but allocate at a pace: what a JVM's collector has to do is then known.
//
//   java Allocator live=MIB rate=MIB_PER_S survive=PERCENT seconds=S [object=BYTES] [threads=N] [after=drop|stay] [idle=S]
//
// The live set is a table of nodes, each an object and its payload. Of what is allocated, `survive` percent replaces random nodes
// of the table (so it is old one day, and what it replaced is garbage there); the rest is garbage at once.
// It prints lines of the form `name value` that jvm.py reads; `drop` lets the live set go at the end, then waits `idle` seconds,
// asks for a collection, waits again, and asks for three more.

import java.lang.management.ManagementFactory;
import java.lang.management.MemoryUsage;
import java.util.HashMap;
import java.util.Map;
import java.util.SplittableRandom;

public final class Allocator {
    private static final long MIB = 1L << 20;
    private static final int NODE_OVERHEAD = 40; // header and two references of a node, header and length of its payload

    private static final class Node {
        final byte[] payload;
        Node other; // some other node of the table: marking follows it

        Node(int bytes) {
            payload = new byte[bytes];
        }
    }

    private static volatile Object sink; // keeps the compiler from leaving allocations out

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new HashMap<>();
        for (String argument : arguments) {
            int at = argument.indexOf('=');
            given.put(argument.substring(0, at), argument.substring(at + 1));
        }
        int object = number(given, "object", 256);
        long rate = number(given, "rate", 0) * MIB;
        int survive = number(given, "survive", 0);
        int threads = number(given, "threads", 0);
        for (int i = 0; i < threads; i++) {
            Thread sleeper = new Thread(() -> pause(1_000_000));
            sleeper.setDaemon(true);
            sleeper.start();
        }
        SplittableRandom draw = new SplittableRandom(1);
        Node[] table = new Node[(int) (number(given, "live", 0) * MIB / (object + NODE_OVERHEAD))];
        for (int i = 0; i < table.length; i++) {
            put(table, i, object, draw);
        }
        say("filled");
        allocate(table, object, rate, survive, number(given, "seconds", 0), draw);
        say("done");
        if (given.getOrDefault("after", "stay").equals("drop")) {
            table = null;
            int idle = number(given, "idle", 3);
            pause(idle * 1000L);
            say("dropped");
            System.gc();
            pause(idle * 1000L);
            say("collected");
            for (int i = 0; i < 3; i++) {
                System.gc(); // Serial shrinks its heap in steps, one for each full collection (ShrinkHeapInSteps)
            }
            pause(idle * 1000L);
        } else {
            System.gc();
        }
        say("over");
        sink = table;
        System.in.read(); // until the measuring side has looked and closes it
    }

    private static void allocate(Node[] table, int object, long rate, int survive, int seconds, SplittableRandom draw) {
        long began = System.nanoTime();
        long allocated = 0;
        long late = 0;
        while (System.nanoTime() - began < seconds * 1_000_000_000L) {
            long due = (long) ((System.nanoTime() - began) / 1e9 * rate);
            while (allocated < due) {
                if (table.length > 0 && draw.nextInt(100) < survive) {
                    put(table, draw.nextInt(table.length), object, draw);
                } else {
                    sink = new Node(object);
                }
                allocated += object + NODE_OVERHEAD;
                late++;
                if ((late & 1023) == 0 && System.nanoTime() - began > seconds * 1_000_000_000L) {
                    break;
                }
            }
            pause(1);
        }
        System.out.println("allocated_mib " + allocated / MIB);
    }

    private static void put(Node[] table, int at, int object, SplittableRandom draw) {
        Node node = new Node(object);
        node.other = table[draw.nextInt(table.length)];
        if (node.other != null) {
            node.other.other = null; // else replaced nodes would be kept by a chain of those that replaced them
        }
        table[at] = node;
    }

    private static void say(String what) {
        MemoryUsage heap = ManagementFactory.getMemoryMXBean().getHeapMemoryUsage();
        System.out.println(what + "_committed_mib " + heap.getCommitted() / MIB);
        System.out.println(what + "_used_mib " + heap.getUsed() / MIB);
        System.out.println(what + "_at_ms " + ManagementFactory.getRuntimeMXBean().getUptime());
        System.out.flush();
    }

    private static int number(Map<String, String> given, String name, int otherwise) {
        return Integer.parseInt(given.getOrDefault(name, String.valueOf(otherwise)));
    }

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }
}
