package lightvision.classifier

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test

class TimingTest {
    @Test
    fun ofFifteenRoundsTheIntervalLeavesOutThreeOnEitherSide() {
        val timing = Timing((1..15).map { listOf(it.toDouble(), it.toDouble(), 100.0) })
        assertEquals(8.0, timing.median, 0.0)
        assertEquals(4.0, timing.low, 0.0)
        assertEquals(12.0, timing.high, 0.0)
        assertEquals(45, timing.count)
        assertTrue(timing.noisy)
    }

    @Test
    fun whereAllCallsTakeTheSameNothingIsNoisy() {
        val timing = Timing(List(6) { listOf(2.0, 2.0) })
        assertEquals(2.0, timing.p95, 0.0)
        assertFalse(timing.noisy)
    }
}
